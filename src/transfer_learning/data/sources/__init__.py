"""Sources: objects that list labelled images (`data.images.Source`)."""

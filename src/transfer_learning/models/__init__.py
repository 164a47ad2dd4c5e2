"""The networks and the LightningModule around them. Reads no configuration."""

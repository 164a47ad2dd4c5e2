"""The command line: everything that knows Hydra's config or the shell."""

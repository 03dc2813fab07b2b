"""Keep what was relayed, on disk, for as long as there is room."""

"""From the snapshot and the inspector to view models: no HTML, no request."""

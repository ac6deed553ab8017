"""The web dashboard, the Prometheus exporter and the alerts of Tickbird (extra `dashboard`)."""

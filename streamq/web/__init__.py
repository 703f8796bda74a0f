"""What a browser, or Prometheus, sees of a queue: metrics, health, the page (extra `web`)."""

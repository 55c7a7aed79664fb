"""What several tests share: tolerances, and small made-up runs."""

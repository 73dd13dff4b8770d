"""Real processes, real signals: whatever dies, every run ends once. Start reading at `stage.py`."""

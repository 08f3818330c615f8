"""OpenVINO on this machine."""

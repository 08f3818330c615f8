"""TFLite files (.tflite), schema version 3."""

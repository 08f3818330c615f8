"""The press: a trained handwriting model in, files that fit the device out, and a verdict on each of them."""

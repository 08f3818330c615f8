"""The press: a trained handwriting model in, files that fit the device out, and a verdict on each of them."""

import targets as targets  # turns off what runtimes report about their use, before one of them is imported

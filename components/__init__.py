"""TFX components of our own, where no stock one exists. One folder each; README.md lists them."""

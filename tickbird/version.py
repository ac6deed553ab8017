"""The installed version."""

from importlib.metadata import PackageNotFoundError, version

try:
    VERSION = version("tickbird")
except PackageNotFoundError:  # a checkout on the path, not installed
    VERSION = "0+unknown"

"""A real fleet under kill -9 and SIGSTOP at its worst moments, for as long as one likes."""

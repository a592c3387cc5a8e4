"""What hypothesis makes up, by the thousand, against the whole service: too much for every run of the tests."""

"""Replies judged by people who do not know where they come from: sheets of numbered replies, and their sums."""

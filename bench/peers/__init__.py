"""The peers, each written as its users would write it well, each a process of its own."""

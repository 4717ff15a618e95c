"""One stage of training: the loop, and what it books, writes and keeps."""

-- A client is no longer in the room. Argument: its name.
remove({ARGV[1]})
expire()

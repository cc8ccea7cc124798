"""What a repository's files mean: names, formats, variants, memory. Pure, and bounded against hostile input.

Both services use it: the registry before anything is downloaded, the runner on what it is about to load.
"""

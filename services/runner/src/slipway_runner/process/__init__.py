"""Processes on this host: started, found again, followed, stopped to the last member."""

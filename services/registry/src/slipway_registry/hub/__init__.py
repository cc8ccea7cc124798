"""All access to the Hub's API: search, metadata, access checks. Nothing else in the registry talks to it."""

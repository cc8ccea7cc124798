"""An emulator of the Hugging Face Hub on loopback, for tests and the demo.

Three origins on three ports, as the real ones are three hosts: the Hub itself (API and redirects), the CDN
that signed links point to, and the CAS that Xet clients read chunks from. Run it by hand with
``python -m tests.hub --demo``, or in a test through the fixtures in `tests.hub.fixtures`.

What the real Hub does was read from huggingface_hub 2.4 and hf-xet 1.8, which run against it unmodified in
`tests/integration/hub`.
"""

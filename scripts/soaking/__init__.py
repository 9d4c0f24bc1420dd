"""Everything at once, for half an hour: `scripts/soak`, described in docs/testing.md.

``site``: who is there. ``traffic``: what they do. ``witness``: who looks on. ``judgement``: whether all counted the
same.
"""

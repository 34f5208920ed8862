"""Videos of any length: chunks that the network can read, joined by similarities into one scene of segments.

In order: plan (which frames make a chunk), frames (read lazily), chunks (what one chunk alone gives), chain (how chunks
lie to each other), carry (tracks over the joints), merge (the segments of one scene), run (the whole job).
"""

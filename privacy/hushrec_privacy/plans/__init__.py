"""Plans of federated runs: what is fixed, public and signed before the first round.

ring       the ring in which updates are summed
schema     the segments that a device's vector consists of
plan       the document, its bytes, and the guarantee that follows from it
signing    Ed25519 signatures over those bytes
limits     what a device allows at most
planner    from what a shop has and wants to a plan
"""

"""The relay: messages, hops and protocols between parties of three tiers."""

"""Detection: telling attacked images from clean ones by a score, and at which rate that is wrong."""

"""Pure statistics: what paired counts and samples show of a margin, on numpy and scipy alone."""

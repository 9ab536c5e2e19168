"""What a volume is and who may have it: pure rules, no I/O."""

"""mtpbench: from stored points to comparison tables. The reading half."""

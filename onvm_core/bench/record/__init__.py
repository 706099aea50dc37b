"""Records of benchmarks: their lines, and the environment in which they were measured."""

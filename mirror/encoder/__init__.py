"""From texts to vectors: backbone, layout of tokens, pooling, perturbation, and the folder that is taken away."""

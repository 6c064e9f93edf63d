"""What a sample says of the whole: designs, quantiles and intervals. Numpy and scipy only; knows no model."""

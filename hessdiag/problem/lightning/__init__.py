"""Lightning's modules and data modules as they are: what training computes, without a Trainer."""

"""What one watched pass is read by: functions and tensors on the way, weights, gradients, the batch, modes."""

"""One file for each training stage of the method, on accelerate, resumable to the step."""

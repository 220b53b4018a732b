"""What turns scores into a posterior: parameters, and what decides."""

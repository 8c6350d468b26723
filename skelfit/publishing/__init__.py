"""A finished run as a dataset of the Hugging Face Hub: tables beside the tars, the card, and the upload."""

"""What a network sees pictures with: ViTPose, or a small network for processors. Knows no body and no training."""

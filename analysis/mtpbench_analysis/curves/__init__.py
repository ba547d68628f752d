"""What becomes of points: curves with their noise, read at targets, set against each other, priced."""

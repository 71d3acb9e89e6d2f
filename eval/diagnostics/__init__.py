"""What a refiner does to contours of known quality, and how long everything takes."""

"""The two-stage detector that Mask R-CNN, PointRend and RefineMask share."""

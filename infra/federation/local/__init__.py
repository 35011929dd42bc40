"""A site's own stages: gate, features, calibration, from its own folder alone.

plan        what all sites agree on: folds, segmentation, views
measure, verdict, frames, score     the computations, each a pure function of rows and files
work        the same as stages with keys, carried out in one site's folder; the pipeline sends these to Ray
steps       check → extract → calibrate for one site, as its own process runs them
travel      what may leave: a verdict, a digest, temperatures and thresholds, in types that can hold nothing else
routes      the steps behind the federation's messages
"""

"""Fits ALS by Spark MLlib: the events stay in Spark, and the driver collects the factors.

session  starts Spark by the settings, and ends its Java process
events   the accepted events of the archive or of a table, as training/data/events.py accepts them
pairs    the id maps and the summed weights of users' events with items
fit      MLlib's ALS on the pairs, and the factors as the same ALS part that `implicit` makes
retrain  the fits of a retrain, by Spark or by `implicit`
"""

"""Folders of videos in, shards of one-second clips out."""

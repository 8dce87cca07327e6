"""What a study's jobs will take, worked out before anything is downloaded."""

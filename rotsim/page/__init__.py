"""The page of `rotsim explore`: one HTML file with live random walks beside their predictions."""

"""What is done with a trained model: restore, predict, embed, score, explain, export, serve. It needs no trainer."""

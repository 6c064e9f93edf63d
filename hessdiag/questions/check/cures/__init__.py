"""What is done to a copy of a network, its data, its loss or its optimizer so that it trains: a module per part."""

"""What Gunicorn needs: its worker, the end of a listener, the folder in which workers share their metrics."""

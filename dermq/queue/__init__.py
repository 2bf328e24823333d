"""The queue in SQL: claims of images and of archives, in the fair order of labs. It knows no Celery."""

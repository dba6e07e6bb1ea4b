"""The addresses of project-name."""

from django.urls import path

from orders import views

urlpatterns = [
    path("orders/<int:number>", views.order),
]
